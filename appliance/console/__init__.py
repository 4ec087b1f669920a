"""The local web pages: static files, served by the HTTP door."""
