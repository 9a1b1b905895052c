"""What is in an archive: bytes to header records, containers to objects, headers to tables and documents."""
