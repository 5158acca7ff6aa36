SUMMARY = "Guest driver of the replay-protected memory block (virtio-rpmb)"
DESCRIPTION = "Makes a virtual machine's RPMB device a device of the kernel's RPMB class (Linux 6.12 and later) \
and /dev/virtio_rpmbN, which takes what the RPMB partition of an eMMC takes."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"
CVE_PRODUCT = "agl-virtio"

inherit module

SRC_URI = "\
    file://virtio_rpmb.c \
    file://Kbuild \
    file://Makefile \
"
S = "${UNPACKDIR}"

# Loaded by its alias where the device is.
RPROVIDES:${PN} += "kernel-module-virtio-rpmb"
