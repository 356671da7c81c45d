"""The server API: methods over HTTP for the application's back end."""
