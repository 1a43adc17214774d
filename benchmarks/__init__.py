"""Programs that measure: decoding against its peers, and the proof that it is exact."""
