"""An application of `guarded` as a module, for servers that import it: `hosted:app`."""

import json
import os

import guarded

given = json.loads(os.environ["GUARD_PROGRAM"])
guarded.prepare(given)
app = getattr(guarded, f"make_{given['framework']}")(given)
