SUMMARY = "QEMU with the front ends of this project's devices, the same for every series"
DESCRIPTION = "A VMM for guests with vhost-user devices: the emulator of this machine's own architecture, with KVM, and that of \
the guest image's; and the generic vhost-user device with queues of 256. QEMU of scarthgap (8.2) has neither vhost-user-snd nor -scmi, and OE-core leaves \
vhost off in every series."
HOMEPAGE = "https://www.qemu.org/"
SECTION = "virtualization"
LICENSE = "GPL-2.0-only & LGPL-2.1-only"
LIC_FILES_CHKSUM = "\
    file://COPYING;md5=a3b50d8b88dcc0eb3d7d39b760b9e821 \
    file://COPYING.LIB;endline=24;md5=8a8178c06478747a771588adec965232 \
"
CVE_PRODUCT = "qemu:qemu"

DEPENDS = "bison-native flex-native glib-2.0 ninja-native"

SRC_URI = "\
    https://download.qemu.org/qemu-${PV}.tar.xz \
    file://0001-virtio-let-devices-that-have-no-name-be-created.patch \
    file://0002-vhost-user-give-snd-i2c-rng-and-input-queues-of-256.patch \
    file://0003-vhost-user-take-back-regions-whose-memory-is-gone.patch \
    file://python-of-the-build \
"
SRC_URI[sha256sum] = "6ee1d1a61f68212476b27108c26da5f449dc09b626d42f8279ba0dc2e08fa858"
UPSTREAM_CHECK_URI = "https://www.qemu.org"
UPSTREAM_CHECK_REGEX = "qemu-(?P<pver>\d+(\.\d+)+)\.tar"

S = "${UNPACKDIR}/qemu-${PV}"
B = "${WORKDIR}/build"

inherit pkgconfig python3native

# QEMU 11 runs on 64-bit hosts only.
COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

# Its own architecture, for KVM; and that of the guest image (virtio-aarch64), which an x86 host emulates.
AGL_VIRTIO_QEMU_TARGETS ?= "${@' '.join(sorted({'aarch64', d.getVar('TARGET_ARCH')}))}"
# Without optimisation it does not work.
DEBUG_BUILD = "0"

PACKAGECONFIG ??= "fdt kvm seccomp slirp tcg vhost virtfs"
PACKAGECONFIG[fdt] = "--enable-fdt=system,--disable-fdt,dtc"
PACKAGECONFIG[kvm] = "--enable-kvm,--disable-kvm"
PACKAGECONFIG[png] = "--enable-pixman --enable-png,--disable-png --disable-pixman,libpng pixman"
PACKAGECONFIG[seccomp] = "--enable-seccomp,--disable-seccomp,libseccomp"
PACKAGECONFIG[slirp] = "--enable-slirp,--disable-slirp,libslirp"
# Guests without KVM: QEMU machines that stand in for a board.
PACKAGECONFIG[tcg] = "--enable-tcg,--disable-tcg"
PACKAGECONFIG[vhost] = "\
    --enable-vhost-user --enable-vhost-kernel --enable-vhost-net --enable-vhost-vdpa,\
    --disable-vhost-user --disable-vhost-kernel --disable-vhost-net --disable-vhost-vdpa\
"
PACKAGECONFIG[virtfs] = "--enable-virtfs --enable-attr --enable-cap-ng,--disable-virtfs --disable-attr,attr libcap-ng"

# The distribution's --disable-static is not among the options of QEMU's own configure.
DISABLE_STATIC = ""

# Everything that is not asked for is off: no display, no sound, no USB of the host, no network storage.
EXTRA_OECONF = "\
    --prefix=${prefix} --bindir=${bindir} --libdir=${libdir} --libexecdir=${libexecdir} --datadir=${datadir} \
    --sysconfdir=${sysconfdir} --localstatedir=${localstatedir} --mandir=${mandir} --docdir=${docdir} \
    --with-suffix=agl-virtio-qemu \
    --cross-prefix=${HOST_PREFIX} --cpu=${TARGET_ARCH} --host-cc='${BUILD_CC}' \
    --extra-cflags='${CFLAGS}' --extra-ldflags='${LDFLAGS}' \
    --python=${UNPACKDIR}/python-of-the-build \
    --target-list=${@','.join(t + '-softmmu' for t in d.getVar('AGL_VIRTIO_QEMU_TARGETS').split())} \
    --without-default-features --enable-system \
    --disable-docs --disable-download --disable-install-blobs --disable-strip --disable-werror \
    ${PACKAGECONFIG_CONFARGS} \
"

do_configure() {
    chmod 0755 ${UNPACKDIR}/python-of-the-build
    export PKG_CONFIG=pkg-config
    ${S}/configure ${EXTRA_OECONF}
}
do_configure[cleandirs] += "${B}"

do_compile() {
    ninja -v ${PARALLEL_MAKE} ${@' '.join('qemu-system-' + t for t in d.getVar('AGL_VIRTIO_QEMU_TARGETS').split())}
}
do_compile[progress] = "outof:^\[(\d+)/(\d+)\]\s+"

# The program, and of its data what these machines load: boot code of x86, option ROMs of the virtio network cards.
AGL_VIRTIO_QEMU_DATA = "bios-256k.bin efi-virtio.rom kvmvapic.bin linuxboot_dma.bin vgabios-stdvga.bin"

do_install() {
    for target in ${AGL_VIRTIO_QEMU_TARGETS}; do
        install -D -m 0755 "${B}/qemu-system-$target" "${D}${bindir}/qemu-system-$target"
    done
    for file in ${AGL_VIRTIO_QEMU_DATA}; do
        install -D -m 0644 "${S}/pc-bios/$file" "${D}${datadir}/agl-virtio-qemu/$file"
    done
}

# In the place of OE-core's, whose program has the same name.
RCONFLICTS:${PN} = "${@' '.join('qemu-system-' + t.replace('_', '-') for t in d.getVar('AGL_VIRTIO_QEMU_TARGETS').split())}"
