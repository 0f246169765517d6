"""What connects the SDK to frameworks and tools; each module needs the extra of its name."""
