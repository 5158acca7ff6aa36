SUMMARY = "Host image: AGL with the services of its guests' devices, and QEMU"
DESCRIPTION = "AGL's minimal image with agl-virtio. With the multiconfig agl-virtio-guest-mc on, the guest image and its \
kernel lie below /usr/lib/agl-virtio/guests."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

require agl-virtio-image.inc
