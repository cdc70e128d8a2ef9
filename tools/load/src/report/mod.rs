//! A result as table, JSON, CSV, HdrHistogram log and HTML.
