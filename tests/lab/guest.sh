ensure_guest() { echo "$cache/none"; }
