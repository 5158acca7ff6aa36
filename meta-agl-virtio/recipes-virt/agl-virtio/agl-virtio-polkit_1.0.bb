SUMMARY = "Lets group agl-virtio-control change guests' devices"
DESCRIPTION = "A polkit rule: members of group agl-virtio-control may change the virtual devices of guests over D-Bus, such \
as a volume, without a password. Put the user into it that your control application runs as."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "agl-virtio"

# Makes the rules folder as polkit itself does, or rpm would find a conflict.
require recipes-extended/polkit/polkit-group-rule.inc

SRC_URI = "file://50-agl-virtio.rules"

S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    # Below /etc on scarthgap, below /usr/share on wrynose.
    for folder in ${D}${sysconfdir}/polkit-1/rules.d ${D}${datadir}/polkit-1/rules.d; do
        if [ -d "$folder" ]; then
            install -m 0644 ${UNPACKDIR}/50-agl-virtio.rules "$folder/"
        fi
    done
}

RDEPENDS:${PN} = "agl-virtio-common"

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system agl-virtio-control"
