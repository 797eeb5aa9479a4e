"""Result values and events, and their renderers: terminal, JSON, JUnit, HTML, Prometheus."""
