"""What an Edgecall image runs as root beside the daemon: slots, updates, first boot. Standard library only."""
