"""From the fence to the promotion, and how it is undone. `cutover.py` says how; the fence itself is beside this folder, because preflight tries it."""
