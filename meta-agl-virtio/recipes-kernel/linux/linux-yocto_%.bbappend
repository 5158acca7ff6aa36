require ${@bb.utils.contains('AGL_FEATURES', 'agl-virtio', 'linux-agl-virtio.inc', '', d)}
