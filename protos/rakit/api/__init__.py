"""Generated messages and services; see the .proto files beside the code."""
