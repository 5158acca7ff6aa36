require ${@bb.utils.contains('AGL_FEATURES', 'agl-virtio', 'recipes-kernel/linux/linux-agl-virtio.inc', '', d)}
