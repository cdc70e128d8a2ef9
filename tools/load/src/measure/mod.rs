//! Histograms, counters and costs while a run goes on.
