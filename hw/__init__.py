"""The board: everything that touches a device node. Usable on a bench without the product."""
