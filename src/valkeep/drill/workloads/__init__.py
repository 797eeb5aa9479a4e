"""What clients do while a drill runs: pure generators of operations, and the engines that send them."""
