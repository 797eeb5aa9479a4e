"""The rehearsal: a whole move on servers of this machine, under load, and the proof of it. Drills of topologies are beside it, one folder up."""
