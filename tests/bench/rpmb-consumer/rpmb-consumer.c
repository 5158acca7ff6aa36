// SPDX-License-Identifier: GPL-2.0
/*
 * A user of the kernel's RPMB class, for the bench: what OP-TEE's driver does,
 * with a key that the test knows. Reading /sys/kernel/debug/rpmb-consumer/run
 * has it read the counter, write a block, and read it back, all signed, on the
 * device that registered with the class last.
 */
#include <crypto/sha2.h>
#include <linux/debugfs.h>
#include <linux/hex.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/rpmb.h>
#include <linux/seq_file.h>

#define ADDRESS		40

static char *key = "";
module_param(key, charp, 0400);
MODULE_PARM_DESC(key, "The device's key: 64 hex digits");

static bool keep;
module_param(keep, bool, 0400);
MODULE_PARM_DESC(keep, "Keep a device whose driver has gone, as OP-TEE's driver does");

static u8 key_bytes[32];
static struct rpmb_dev *found;
static DEFINE_MUTEX(lock);
static struct dentry *folder;

static int route(struct rpmb_frame *request, struct rpmb_frame *answer)
{
	u8 mac[32];
	u16 type = be16_to_cpu(request->req_resp);
	int err;

	if (type == RPMB_WRITE_DATA)
		hmac_sha256_usingrawkey(key_bytes, 32, request->data, 284,
					request->key_mac);
	else
		get_random_bytes(request->nonce, sizeof(request->nonce));
	err = rpmb_route_frames(found, (u8 *)request, sizeof(*request),
				(u8 *)answer, sizeof(*answer));
	if (err)
		return err;
	hmac_sha256_usingrawkey(key_bytes, 32, answer->data, 284, mac);
	if (memcmp(mac, answer->key_mac, sizeof(mac)))
		return -EBADMSG;
	if (be16_to_cpu(answer->req_resp) != type << 8 ||
	    memcmp(answer->nonce, request->nonce, sizeof(request->nonce)))
		return -EPROTO;
	return be16_to_cpu(answer->result) ? -EREMOTEIO : 0;
}

static int run(struct seq_file *file)
{
	struct rpmb_frame *frames, *request, *answer;
	u32 counter;
	u8 data[256];
	int err;

	frames = kcalloc(2, sizeof(*frames), GFP_KERNEL);
	if (!frames)
		return -ENOMEM;
	request = &frames[0];
	answer = &frames[1];
	get_random_bytes(data, sizeof(data));

	/* As for an eMMC: how many blocks is not in these frames. */
	request->req_resp = cpu_to_be16(RPMB_GET_WRITE_COUNTER);
	err = route(request, answer);
	if (err)
		goto out;
	counter = be32_to_cpu(answer->write_counter);

	memset(request, 0, sizeof(*request));
	request->req_resp = cpu_to_be16(RPMB_WRITE_DATA);
	memcpy(request->data, data, sizeof(data));
	request->addr = cpu_to_be16(ADDRESS);
	request->block_count = cpu_to_be16(1);
	request->write_counter = cpu_to_be32(counter);
	err = route(request, answer);
	if (err)
		goto out;
	err = -EPROTO;
	if (be32_to_cpu(answer->write_counter) != counter + 1)
		goto out;

	memset(request, 0, sizeof(*request));
	request->req_resp = cpu_to_be16(RPMB_READ_DATA);
	request->addr = cpu_to_be16(ADDRESS);
	err = route(request, answer);
	if (err)
		goto out;
	err = memcmp(answer->data, data, sizeof(data)) ? -EILSEQ : 0;
	seq_printf(file, "capacity %u, reliable %u, id %.15s %u, counter %u\n",
		   found->descr.capacity, found->descr.reliable_wr_count,
		   found->descr.dev_id, found->descr.dev_id[15], counter + 1);
out:
	kfree(frames);
	return err;
}

static int run_show(struct seq_file *file, void *unused)
{
	int err;

	mutex_lock(&lock);
	err = found ? run(file) : -ENODEV;
	mutex_unlock(&lock);
	return err;
}
DEFINE_SHOW_ATTRIBUTE(run);

static int add_device(struct device *dev)
{
	mutex_lock(&lock);
	rpmb_dev_put(found);
	found = rpmb_dev_get(to_rpmb_dev(dev));
	mutex_unlock(&lock);
	return 0;
}

static void remove_device(struct device *dev)
{
	mutex_lock(&lock);
	if (!keep && found == to_rpmb_dev(dev)) {
		rpmb_dev_put(found);
		found = NULL;
	}
	mutex_unlock(&lock);
}

static struct class_interface interface = {
	.add_dev = add_device,
	.remove_dev = remove_device,
};

static int __init rpmb_consumer_init(void)
{
	int err;

	if (strlen(key) != 64 || hex2bin(key_bytes, key, 32))
		return -EINVAL;
	err = rpmb_interface_register(&interface);
	if (err)
		return err;
	folder = debugfs_create_dir("rpmb-consumer", NULL);
	debugfs_create_file("run", 0400, folder, NULL, &run_fops);
	return 0;
}
module_init(rpmb_consumer_init);

static void __exit rpmb_consumer_exit(void)
{
	debugfs_remove(folder);
	rpmb_interface_unregister(&interface);
	rpmb_dev_put(found);
}
module_exit(rpmb_consumer_exit);

MODULE_DESCRIPTION("A user of the RPMB class for tests");
MODULE_LICENSE("GPL");
