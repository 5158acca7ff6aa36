SUMMARY = "Host image: AGL with the services of its guests' devices, and QEMU"
DESCRIPTION = "AGL's minimal image with agl-virtio. With the multiconfig agl-virtio-guest-mc on, the guest image and its \
kernel lie below /usr/lib/agl-virtio/guests."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

inherit agl-core-image

IMAGE_FEATURES += "ssh-server-openssh"
IMAGE_INSTALL = "\
    packagegroup-agl-image-minimal \
    packagegroup-agl-virtio-host \
    kernel-modules \
    ${CORE_IMAGE_EXTRA_INSTALL} \
"

# The H3 board's eMMC has 7.4 GiB: two root file systems of this size, for updates, and as much for /var.
IMAGE_ROOTFS_MAXSIZE:h3ulcb ?= "2621440"

# A guest image is of the other build, with its own machine and deploy folder.
AGL_VIRTIO_GUEST_MC = "${@bb.utils.filter('BBMULTICONFIG', 'agl-virtio-guest-mc', d)}"
AGL_VIRTIO_GUEST_IMAGE ?= "agl-virtio-guest-image"
AGL_VIRTIO_GUEST_MACHINE ?= "virtio-aarch64"
AGL_VIRTIO_GUEST_DEPLOY ?= "${TOPDIR}/tmp-agl-virtio-guest/deploy/images/${AGL_VIRTIO_GUEST_MACHINE}"

install_guest () {
    if [ -n "${AGL_VIRTIO_GUEST_MC}" ]; then
        folder=${IMAGE_ROOTFS}${nonarch_libdir}/agl-virtio/guests/${AGL_VIRTIO_GUEST_IMAGE}
        install -d "$folder"
        install -m 0644 ${AGL_VIRTIO_GUEST_DEPLOY}/Image "$folder/Image"
        install -m 0644 ${AGL_VIRTIO_GUEST_DEPLOY}/${AGL_VIRTIO_GUEST_IMAGE}-${AGL_VIRTIO_GUEST_MACHINE}.rootfs.ext4 \
            "$folder/rootfs.ext4"
        # where systemd and its tools look for machines; what a guest writes goes to an overlay below /var, not in here
        install -d ${IMAGE_ROOTFS}${localstatedir}/lib/machines
        ln -sf ${nonarch_libdir}/agl-virtio/guests/${AGL_VIRTIO_GUEST_IMAGE} \
            ${IMAGE_ROOTFS}${localstatedir}/lib/machines/${AGL_VIRTIO_GUEST_IMAGE}
    fi
}
ROOTFS_POSTPROCESS_COMMAND += "install_guest;"

python () {
    multiconfig = d.getVar("AGL_VIRTIO_GUEST_MC")
    if multiconfig:
        guest = d.getVar("AGL_VIRTIO_GUEST_IMAGE")
        d.appendVarFlag("do_rootfs", "mcdepends", " mc::%s:%s:do_image_complete" % (multiconfig, guest))
}
