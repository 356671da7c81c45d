"""One file a command: parse, call the app, print. No behaviour."""
