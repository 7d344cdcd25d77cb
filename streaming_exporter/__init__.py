"""What another service needs to ask for exports: the event contract and its errors."""
