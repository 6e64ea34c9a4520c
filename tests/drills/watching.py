"""The drill of the console: pages that show an old state."""

from tests.drills.drill import drill
from tests.drills.owning import limit_files, unlimit_files
from tests.drills.scene import Scene

_LOG_BYTES = 16_384
"""Of the console's log; its index is larger from the start."""


@drill("CartsyncConsoleBehind", "the disk of the index takes no more: a limit on the size of files", factor=20)
async def console_behind(scene: Scene) -> None:
    """Space is freed, and the console goes on by itself: it shows what came meanwhile."""
    await scene.started()
    await scene.agrees(await scene.shipped("before"))
    console = await scene.start_console(scene.folder / "index.sqlite")
    limit_files(console, _LOG_BYTES)
    scene.broken()
    await scene.agrees(await scene.shipped("meanwhile"))
    await scene.fires()
    said = await scene.says("console_kafka_away", console)
    assert said["error"].startswith("the index cannot be written"), said
    scene.named("the index cannot be written")
    scene.named("free space")
    unlimit_files(console)
    await scene.resolves()
    assert await scene.value('cartsync_console_index{state="following"}') == 1
