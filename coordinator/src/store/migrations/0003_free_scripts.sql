-- A wallet comes to have a million scripts: the next unused one, and the one that was taken longest ago, are found without looking at all.
CREATE INDEX script_handed ON script (wallet, branch, handed_at, idx);
