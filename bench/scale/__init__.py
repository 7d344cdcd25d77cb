"""How the service grows: with workers on one machine, and with the jobs that its table holds."""
