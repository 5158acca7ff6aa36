// SPDX-License-Identifier: GPL-2.0
/*
 * Clocks, resets, regulators and power domains of this machine for the guests that it hosts.
 *
 * Linux gives no process a way to use them. This driver gives one for those that its device tree
 * node lists, and for no others; who may write to the files is decided by their owner and mode.
 *
 *	/sys/class/agl-virtio-resource/
 *		clock:NAME/enable	0 or 1: whether the clock is wanted
 *		clock:NAME/rate		in Hz
 *		clock:NAME/parent	the name of another clock of the node
 *		reset:NAME/assert	0 or 1
 *		reset:NAME/pulse	write 1: reset once
 *		voltage:NAME/enable	0 or 1: whether the supply is wanted
 *		voltage:NAME/microvolts	in uV
 *		power:NAME/enable	0 or 1: whether the power domain is wanted
 *
 * What was written holds until something else is written or the driver is unbound. It does not end
 * with the process that wrote it: a platform service that is restarted must not make a guest's
 * display flicker. Files called enable tell what was wanted here, not what other consumers want.
 *
 * Needs Linux 5.10 or later.
 */

#include <linux/clk.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/of.h>
#include <linux/platform_device.h>
#include <linux/pm_domain.h>
#include <linux/pm_runtime.h>
#include <linux/regulator/consumer.h>
#include <linux/reset.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

/**
 * struct resource_entry - one resource
 * @owner: the device whose node lists it
 * @lock: keeps @on and the resource's state together
 * @on: whether it is wanted, or held in reset
 * @name: its name in the node
 * @clk: the clock, or NULL
 * @siblings: all clocks of the node, for parents
 * @sibling_count: how many these are
 * @reset: the reset, or NULL
 * @supply: the regulator, or NULL
 * @domain: the device that stands for the power domain, or NULL
 * @attached: whether @domain was made for us, and is not @owner
 */
struct resource_entry {
	struct device *owner;
	struct mutex lock; /* for @on and what it stands for */
	bool on;
	const char *name;
	struct clk *clk;
	struct resource_entry *siblings;
	int sibling_count;
	struct reset_control *reset;
	struct regulator *supply;
	struct device *domain;
	bool attached;
};

static struct class resource_class = {
	.name = "agl-virtio-resource",
};

/* Wants a resource, or does not want it any more. The caller holds the lock. */
static int resource_switch(struct resource_entry *entry, bool on)
{
	int ret = 0;

	if (on == entry->on)
		return 0;
	if (entry->clk) {
		if (on)
			ret = clk_prepare_enable(entry->clk);
		else
			clk_disable_unprepare(entry->clk);
	} else if (entry->reset) {
		ret = on ? reset_control_assert(entry->reset) :
			   reset_control_deassert(entry->reset);
	} else if (entry->supply) {
		ret = on ? regulator_enable(entry->supply) :
			   regulator_disable(entry->supply);
	} else if (on) {
		ret = pm_runtime_resume_and_get(entry->domain);
	} else {
		ret = pm_runtime_put_sync(entry->domain);
	}
	/* Runtime PM tells with 1 that nothing had to be done. */
	if (ret < 0)
		return ret;
	entry->on = on;
	return 0;
}

static ssize_t enable_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	bool on;

	mutex_lock(&entry->lock);
	on = entry->on;
	mutex_unlock(&entry->lock);
	return sysfs_emit(buf, "%d\n", on);
}

static ssize_t enable_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	bool on;
	int ret;

	ret = kstrtobool(buf, &on);
	if (ret)
		return ret;
	mutex_lock(&entry->lock);
	ret = resource_switch(entry, on);
	mutex_unlock(&entry->lock);
	return ret ? ret : count;
}
static DEVICE_ATTR_RW(enable);
static struct device_attribute dev_attr_assert =
	__ATTR(assert, 0644, enable_show, enable_store);

static ssize_t rate_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct resource_entry *entry = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%lu\n", clk_get_rate(entry->clk));
}

static ssize_t rate_store(struct device *dev, struct device_attribute *attr,
			  const char *buf, size_t count)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	unsigned long rate;
	int ret;

	ret = kstrtoul(buf, 10, &rate);
	if (ret)
		return ret;
	mutex_lock(&entry->lock);
	ret = clk_set_rate(entry->clk, rate);
	mutex_unlock(&entry->lock);
	return ret ? ret : count;
}
static DEVICE_ATTR_RW(rate);

static ssize_t parent_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	struct clk *parent = clk_get_parent(entry->clk);
	int i;

	/* A parent that the node does not list is nobody's business. */
	for (i = 0; parent && i < entry->sibling_count; i++)
		if (clk_is_match(entry->siblings[i].clk, parent))
			return sysfs_emit(buf, "%s\n", entry->siblings[i].name);
	return sysfs_emit(buf, "\n");
}

static ssize_t parent_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	int i, ret;

	for (i = 0; i < entry->sibling_count; i++) {
		if (!sysfs_streq(buf, entry->siblings[i].name))
			continue;
		mutex_lock(&entry->lock);
		ret = clk_set_parent(entry->clk, entry->siblings[i].clk);
		mutex_unlock(&entry->lock);
		return ret ? ret : count;
	}
	return -EINVAL;
}
static DEVICE_ATTR_RW(parent);

static ssize_t pulse_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	bool now;
	int ret;

	ret = kstrtobool(buf, &now);
	if (ret)
		return ret;
	if (!now)
		return -EINVAL;
	mutex_lock(&entry->lock);
	ret = reset_control_reset(entry->reset);
	mutex_unlock(&entry->lock);
	return ret ? ret : count;
}
static DEVICE_ATTR_WO(pulse);

static ssize_t microvolts_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	int microvolts = regulator_get_voltage(entry->supply);

	if (microvolts < 0)
		return microvolts;
	return sysfs_emit(buf, "%d\n", microvolts);
}

static ssize_t microvolts_store(struct device *dev, struct device_attribute *attr,
				const char *buf, size_t count)
{
	struct resource_entry *entry = dev_get_drvdata(dev);
	int microvolts, ret;

	ret = kstrtoint(buf, 10, &microvolts);
	if (ret)
		return ret;
	mutex_lock(&entry->lock);
	ret = regulator_set_voltage(entry->supply, microvolts, microvolts);
	mutex_unlock(&entry->lock);
	return ret ? ret : count;
}
static DEVICE_ATTR_RW(microvolts);

static struct attribute *clock_attrs[] = {
	&dev_attr_enable.attr,
	&dev_attr_rate.attr,
	&dev_attr_parent.attr,
	NULL
};
ATTRIBUTE_GROUPS(clock);

static struct attribute *reset_attrs[] = {
	&dev_attr_assert.attr,
	&dev_attr_pulse.attr,
	NULL
};
ATTRIBUTE_GROUPS(reset);

static struct attribute *voltage_attrs[] = {
	&dev_attr_enable.attr,
	&dev_attr_microvolts.attr,
	NULL
};
ATTRIBUTE_GROUPS(voltage);

static struct attribute *power_attrs[] = {
	&dev_attr_enable.attr,
	NULL
};
ATTRIBUTE_GROUPS(power);

static void resource_let_go(void *data)
{
	struct resource_entry *entry = data;
	int ret;

	mutex_lock(&entry->lock);
	ret = resource_switch(entry, false);
	mutex_unlock(&entry->lock);
	if (ret)
		dev_err(entry->owner, "%s stays as it is: %d\n", entry->name, ret);
}

static void resource_hide(void *data)
{
	device_unregister(data);
}

/* Shows a resource. It is hidden first and then let go when the driver is unbound. */
static int resource_show(struct resource_entry *entry, const char *kind,
			 const struct attribute_group **groups)
{
	struct device *shown;
	int ret;

	ret = devm_add_action_or_reset(entry->owner, resource_let_go, entry);
	if (ret)
		return ret;
	shown = device_create_with_groups(&resource_class, entry->owner, MKDEV(0, 0), entry,
					  groups, "%s:%s", kind, entry->name);
	if (IS_ERR(shown))
		return dev_err_probe(entry->owner, PTR_ERR(shown), "%s %s\n", kind, entry->name);
	return devm_add_action_or_reset(entry->owner, resource_hide, shown);
}

/* The names of a list, each in an entry of its own. *count is 0 where there is no such list. */
static struct resource_entry *resource_entries(struct device *dev, const char *list, int *count)
{
	struct resource_entry *entries;
	int i, ret;

	*count = of_property_count_strings(dev->of_node, list);
	/* -EINVAL: the property is not there. */
	if (*count == -EINVAL)
		*count = 0;
	if (*count <= 0)
		return *count ? ERR_PTR(*count) : NULL;
	entries = devm_kcalloc(dev, *count, sizeof(*entries), GFP_KERNEL);
	if (!entries)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < *count; i++) {
		entries[i].owner = dev;
		mutex_init(&entries[i].lock);
		ret = of_property_read_string_index(dev->of_node, list, i, &entries[i].name);
		if (ret)
			return ERR_PTR(ret);
		/* The name is going to be the name of a folder. */
		if (!*entries[i].name || strchr(entries[i].name, '/')) {
			dev_err(dev, "%s: \"%s\" is no name\n", list, entries[i].name);
			return ERR_PTR(-EINVAL);
		}
	}
	return entries;
}

static int add_clocks(struct device *dev)
{
	struct resource_entry *entries;
	int count, i, ret;

	entries = resource_entries(dev, "clock-names", &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (i = 0; i < count; i++) {
		entries[i].clk = devm_clk_get(dev, entries[i].name);
		if (IS_ERR(entries[i].clk))
			return dev_err_probe(dev, PTR_ERR(entries[i].clk), "clock %s\n",
					     entries[i].name);
		entries[i].siblings = entries;
		entries[i].sibling_count = count;
	}
	for (i = 0; i < count; i++) {
		ret = resource_show(&entries[i], "clock", clock_groups);
		if (ret)
			return ret;
	}
	return 0;
}

static int add_resets(struct device *dev)
{
	struct resource_entry *entries;
	int count, i, ret;

	entries = resource_entries(dev, "reset-names", &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (i = 0; i < count; i++) {
		entries[i].reset = devm_reset_control_get_exclusive(dev, entries[i].name);
		if (IS_ERR(entries[i].reset))
			return dev_err_probe(dev, PTR_ERR(entries[i].reset), "reset %s\n",
					     entries[i].name);
		ret = resource_show(&entries[i], "reset", reset_groups);
		if (ret)
			return ret;
	}
	return 0;
}

static int add_voltages(struct device *dev)
{
	struct resource_entry *entries;
	int count, i, ret;

	entries = resource_entries(dev, "agl,supply-names", &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (i = 0; i < count; i++) {
		/* Optional: without, a name that is missing would be a supply that does nothing. */
		entries[i].supply = devm_regulator_get_optional(dev, entries[i].name);
		if (IS_ERR(entries[i].supply))
			return dev_err_probe(dev, PTR_ERR(entries[i].supply), "supply %s\n",
					     entries[i].name);
		ret = resource_show(&entries[i], "voltage", voltage_groups);
		if (ret)
			return ret;
	}
	return 0;
}

static void power_detach(void *data)
{
	struct resource_entry *entry = data;

	if (entry->attached)
		dev_pm_domain_detach(entry->domain, false);
	else
		pm_runtime_disable(entry->domain);
}

static int add_powers(struct device *dev)
{
	struct resource_entry *entries;
	int count, i, ret;

	entries = resource_entries(dev, "power-domain-names", &count);
	if (IS_ERR(entries))
		return PTR_ERR(entries);
	for (i = 0; i < count; i++) {
		if (count == 1) {
			/* The driver core has put the device itself into the only domain. */
			entries[i].domain = dev;
			pm_runtime_enable(dev);
		} else {
			entries[i].domain = dev_pm_domain_attach_by_id(dev, i);
			entries[i].attached = true;
		}
		if (IS_ERR_OR_NULL(entries[i].domain)) {
			ret = entries[i].domain ? PTR_ERR(entries[i].domain) : -ENODEV;
			return dev_err_probe(dev, ret, "power domain %s\n", entries[i].name);
		}
		ret = devm_add_action_or_reset(dev, power_detach, &entries[i]);
		if (ret)
			return ret;
		ret = resource_show(&entries[i], "power", power_groups);
		if (ret)
			return ret;
	}
	return 0;
}

static int resources_probe(struct platform_device *pdev)
{
	static int (* const add[])(struct device *dev) = {
		add_clocks, add_resets, add_voltages, add_powers,
	};
	int i, ret;

	for (i = 0; i < ARRAY_SIZE(add); i++) {
		ret = add[i](&pdev->dev);
		if (ret)
			return ret;
	}
	return 0;
}

static const struct of_device_id resources_ids[] = {
	{ .compatible = "agl,virtio-resources" },
	{ }
};
MODULE_DEVICE_TABLE(of, resources_ids);

static struct platform_driver resources_driver = {
	.probe = resources_probe,
	.driver = {
		.name = "agl-virtio-resources",
		.of_match_table = resources_ids,
	},
};

static int __init resources_init(void)
{
	int ret;

	ret = class_register(&resource_class);
	if (ret)
		return ret;
	ret = platform_driver_register(&resources_driver);
	if (ret)
		class_unregister(&resource_class);
	return ret;
}
module_init(resources_init);

static void __exit resources_exit(void)
{
	platform_driver_unregister(&resources_driver);
	class_unregister(&resource_class);
}
module_exit(resources_exit);

MODULE_DESCRIPTION("Clocks, resets, regulators and power domains of a host for its guests");
MODULE_AUTHOR("agl-virtio");
MODULE_LICENSE("GPL");
