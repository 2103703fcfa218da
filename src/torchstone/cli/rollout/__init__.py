"""Try a new bundle on live traffic beside the stable one: start, look, promote, abort."""
