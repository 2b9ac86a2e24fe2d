"""What all widgets share: buttons, captions, code to copy, pictures, and work in a thread."""
