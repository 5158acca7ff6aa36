require ${@bb.utils.contains('AGL_FEATURES', 'agl-virtio', 'refpolicy-agl-virtio.inc', '', d)}
