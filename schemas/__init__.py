"""Every message on a wire we own, as msgspec Structs. Imports nothing else of ours."""
