SUMMARY = "CAN driver for virtual machines whose Linux is older than 7.2"
DESCRIPTION = "Linux' own virtio_can, taken from a newer kernel's source when it is built, with the little that older \
kernels (6.6 to 7.1) need beside it. From 7.2 on the kernel has it: use the fragment virtio-can.cfg there."
HOMEPAGE = "https://docs.kernel.org/networking/can.html"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"
CVE_PRODUCT = "linux:linux_kernel"

# Two files of Linux: its whole source would be 140 MB.
VIRTIO_CAN_COMMIT = "b4d85f863e5a6f1fa01b186001af0f68f4f5239e"
VIRTIO_CAN_SOURCE = "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/plain"
SRC_URI = "\
    ${VIRTIO_CAN_SOURCE}/drivers/net/can/virtio_can.c?id=${VIRTIO_CAN_COMMIT};name=driver;downloadfilename=virtio_can-${PV}.c \
    ${VIRTIO_CAN_SOURCE}/include/uapi/linux/virtio_can.h?id=${VIRTIO_CAN_COMMIT};name=header;downloadfilename=virtio_can-${PV}.h \
    file://Makefile \
    file://virtio_can_compat.h \
"
SRC_URI[driver.sha256sum] = "b44acfcb279e5df1a42e389fffece74ec56501a8015fd8eeb4f4842b06a3fd30"
SRC_URI[header.sha256sum] = "c3e9e7b87fe8f67850ad6ac4777860d6b5f7ce27baaa2b10b8ec54247b589678"

S = "${UNPACKDIR}"

inherit module

do_configure:append() {
    install -d ${S}/include/linux
    cp ${S}/virtio_can-${PV}.h ${S}/include/linux/virtio_can.h
    cp ${S}/virtio_can-${PV}.c ${S}/virtio_can.c
    # Before 6.16 a controller's data bit timing has another name.
    if ! grep -q data_bittiming_params ${STAGING_KERNEL_DIR}/include/linux/can/dev.h; then
        sed -i 's/can\.fd\.data_bittiming/can.data_bittiming/' ${S}/virtio_can.c
    fi
}

RPROVIDES:${PN} += "kernel-module-virtio-can"
