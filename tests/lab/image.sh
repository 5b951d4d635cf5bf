#!/bin/bash
# image.sh RELEASE MIRROR FOLDER: makes the root file system of the lab's machines for a Debian release, in FOLDER:
# root.qcow2, vmlinuz, initrd and the ssh key. About ten minutes, nearly all of it the ZFS module's build.
# The lab runs it and keeps what it makes under a digest of this very file, so that a change makes a new image.
set -euo pipefail
release=$1 mirror=$2 folder=$3
cd "$folder"

packages=(
    systemd-sysv udev dbus kmod iproute2 openssh-server procps psmisc
    linux-image-amd64 linux-headers-amd64 zfs-dkms zfsutils-linux
    pacemaker corosync pcs pacemaker-cli-utils resource-agents
    targetcli-fb open-iscsi dmsetup nftables sg3-utils iputils-arping libxml2-utils
)
echo "== packages of $release"
mmdebstrap --variant=minbase --components="main contrib" \
    --include="$(IFS=,; echo "${packages[*]}")" "$release" root "$mirror"

echo "== configuration"
ssh-keygen -q -t ed25519 -N '' -C lab -f key
install -d -m 700 root/root/.ssh
install -m 600 key.pub root/root/.ssh/authorized_keys
cat >> root/etc/ssh/sshd_config <<'SSHD'
UseDNS no
UsePAM no
SSHD

# A machine learns from the kernel command line who it is: lab.id=N lab.name=NAME. Its interfaces carry their network in
# the last but one byte of their address.
cat > root/usr/local/sbin/lab-identity <<'IDENTITY'
#!/bin/bash
for word in $(cat /proc/cmdline); do
    case $word in lab.id=*) id=${word#*=} ;; lab.name=*) name=${word#*=} ;; esac
done
echo "$name" > /proc/sys/kernel/hostname; echo "$name" > /etc/hostname
for path in /sys/class/net/eth*; do
    [ -e "$path" ] || continue
    case $(cat "$path/address") in
        52:54:00:00:00:*) net=mgmt address=10.20.20.$id ;;
        52:54:00:00:01:*) net=stor address=10.10.10.$id ;;
        52:54:00:00:02:*) net=end address=10.30.30.$id ;;
        52:54:00:00:03:*) net=hyp address=10.40.40.$id ;;
    esac
    ip link set "${path##*/}" name $net
    ip addr add "$address/24" dev $net
    ip link set $net up
done
printf "\\x0$id\\x00\\xde\\xc0" > /etc/hostid
echo "InitiatorName=iqn.2025-01.lab.home:initiator-$name" > /etc/iscsi/initiatorname.iscsi
IDENTITY
chmod 755 root/usr/local/sbin/lab-identity
cat > root/etc/systemd/system/lab-identity.service <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service systemd-udevd.service
Before=network-pre.target sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-identity
[Install]
WantedBy=sysinit.target
UNIT
cat > root/etc/hosts <<'HOSTS'
127.0.0.1 localhost
10.20.20.1 storage-a
10.20.20.2 storage-b
10.20.20.3 quorum-c
10.20.20.4 client
HOSTS
echo "/dev/vda / ext4 noatime 0 1" > root/etc/fstab
echo lab > root/root/.hacluster; chmod 600 root/root/.hacluster

# What a machine of the lab does not need costs minutes under emulation.
chroot root bash -c '
    systemctl -q enable lab-identity ssh
    for unit in zfs-import-cache zfs-import-scan zfs-mount zfs-share zfs-zed zfs-volume-wait corosync pacemaker pcsd pcsd-ruby \
                rtslib-fb-targetctl open-iscsi nftables networking systemd-timesyncd e2scrub_reap; do
        systemctl -q disable $unit.service || true
    done 2>/dev/null
    systemctl -q mask apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer dpkg-db-backup.timer \
        systemd-pstore.service systemd-binfmt.service systemd-udev-settle.service getty@tty1.service \
        dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-journal-flush.service
    systemctl -q set-default multi-user.target
    echo hacluster:lab | chpasswd' >/dev/null
printf '[Journal]\nStorage=persistent\nSyncIntervalSec=1s\n' > root/etc/systemd/journald.conf.d.lab
install -D root/etc/systemd/journald.conf.d.lab root/etc/systemd/journald.conf.d/lab.conf
rm root/etc/systemd/journald.conf.d.lab
echo "kernel.panic=5" > root/etc/sysctl.d/lab.conf

echo "== kernel"
printf 'virtio_blk\nvirtio_pci\nvirtio_net\next4\n' >> root/etc/initramfs-tools/modules
sed -i 's/^MODULES=.*/MODULES=list/' root/etc/initramfs-tools/initramfs.conf
chroot root update-initramfs -u >/dev/null
kernel=$(basename root/lib/modules/*)
chroot root modinfo -k "$kernel" zfs >/dev/null || { echo "the ZFS module was not built for $kernel" >&2; exit 1; }
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd
rm -rf root/usr/src/* root/var/lib/dkms/zfs/*/build root/usr/share/{doc,man,locale}/* root/usr/lib/gcc root/usr/libexec/gcc \
    root/var/cache/apt/* root/var/lib/apt/lists/*

echo "== file system"
truncate -s 4G root.img
mke2fs -q -t ext4 -d root root.img
qemu-img convert -O qcow2 root.img root.qcow2
rm -rf --one-file-system root root.img
