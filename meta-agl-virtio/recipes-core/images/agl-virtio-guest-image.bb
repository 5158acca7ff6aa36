SUMMARY = "Guest image: a small AGL with drivers and programs for virtio devices"
DESCRIPTION = "AGL's minimal image with what packagegroup-agl-virtio-guest has. Meant for the machine virtio-aarch64; QEMU \
machines build it too."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

inherit agl-core-image

IMAGE_FEATURES += "ssh-server-openssh"
IMAGE_INSTALL = "\
    packagegroup-agl-image-minimal \
    packagegroup-agl-virtio-guest \
    ${CORE_IMAGE_EXTRA_INSTALL} \
"

# A VMM boots the kernel from a file and the root file system from a disk without partitions.
IMAGE_FSTYPES = "ext4"
