"""Online migration of a live Redis to Valkey: preflight, gateway, verify, cut-over; the pipeline composes them."""
