"""The call: machine, roster, address book, controller (the one writer of call state)."""
