"""Files of finished jobs over HTTP: downloads, links and deliveries."""
