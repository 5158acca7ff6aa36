"""The guest bench of agl-virtio: a real Linux guest under QEMU for tests that need a real driver.

What a test uses:

    from aglbench.guest import Guest          boot a guest, run commands in it, pause it, end it
    from aglbench.ktap import parse_ktap      read the result of a kernel self-test
    from aglbench.pcm import clip             audio that is compared bit by bit

The other modules build what a guest is made of (see setup.py); a test only needs `pieces()` from there.
"""
