"""Jobs over HTTP: request, estimate, list, watch, cancel."""
