"""What may cancel an operation. Each source is one coroutine, ``wait() -> Cancelation``."""
