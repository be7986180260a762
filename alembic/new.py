"""Write the next migration from what digest/models/ says and the shipped migrations do not: `./run migration TEXT`.

Until the first release there is one revision, made anew instead of amended:
`rm alembic/versions/0001_*.py && ./run migration "first tables"`. Read what comes out before you commit it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from alembic import command
from digest.db import Database

HERE = Path(__file__).resolve().parent


def main(text: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    script = ScriptDirectory.from_config(config)
    number = f"{len(list(script.walk_revisions())) + 1:04}"
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/empty.sqlite3")
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            if script.get_current_head():
                command.upgrade(config, "head")
            command.revision(config, text, autogenerate=True, rev_id=number)
        database.close()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or sys.exit("say in a few words what the migration does"))
