"""Makes a topology real: finds server binaries and starts nodes. Test and rehearsal code; production code never imports it."""
