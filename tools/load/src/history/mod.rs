//! What every operation did and when, as a file, and what must hold of it.
