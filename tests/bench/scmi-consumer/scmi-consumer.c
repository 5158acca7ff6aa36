// SPDX-License-Identifier: GPL-2.0
/*
 * A consumer of everything that SCMI gives a guest, for the bench: what Linux has no stock user
 * interface for is done by writing to files of debugfs.
 *
 * Its device tree node names clocks, a reset, a regulator and a power domain; its folder is
 * /sys/kernel/debug/scmi-consumer:
 *   rate     write Hz: set the first clock's rate; read: its rate
 *   parent   write 0 or 1: feed the second clock by one of the others named; read: its rate
 *   clock    write 1 or 0: enable, disable the first clock
 *   power    write 1 or 0: runtime resume, suspend
 *   reset    write 1: assert, 0: deassert, 2: pulse
 *   voltage  write µV (0: disable): set and enable the regulator; read: µV
 *   pins     write 1: take the pins of the state "i2c", 0: give them back
 */

#include <linux/clk.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/pinctrl/consumer.h>
#include <linux/platform_device.h>
#include <linux/pm_runtime.h>
#include <linux/regulator/consumer.h>
#include <linux/reset.h>

struct consumer {
	struct device *dev;
	struct dentry *folder;
	struct clk *clk;
	struct clk *mux;
	struct clk *parents[2];
	struct reset_control *reset;
	struct regulator *supply;
	struct pinctrl *pins;
	bool clk_on;
	bool supply_on;
};

static int rate_get(void *data, u64 *val)
{
	struct consumer *c = data;

	*val = clk_get_rate(c->clk);
	return 0;
}

static int rate_set(void *data, u64 val)
{
	struct consumer *c = data;

	return clk_set_rate(c->clk, val);
}
DEFINE_DEBUGFS_ATTRIBUTE(rate_fops, rate_get, rate_set, "%llu\n");

static int parent_get(void *data, u64 *val)
{
	struct consumer *c = data;

	*val = clk_get_rate(c->mux);
	return 0;
}

static int parent_set(void *data, u64 val)
{
	struct consumer *c = data;

	if (val >= ARRAY_SIZE(c->parents))
		return -EINVAL;
	return clk_set_parent(c->mux, c->parents[val]);
}
DEFINE_DEBUGFS_ATTRIBUTE(parent_fops, parent_get, parent_set, "%llu\n");

static int clock_set(void *data, u64 val)
{
	struct consumer *c = data;
	int ret = 0;

	if (!!val == c->clk_on)
		return 0;
	if (val)
		ret = clk_prepare_enable(c->clk);
	else
		clk_disable_unprepare(c->clk);
	if (!ret)
		c->clk_on = !!val;
	return ret;
}
DEFINE_DEBUGFS_ATTRIBUTE(clock_fops, NULL, clock_set, "%llu\n");

static int power_set(void *data, u64 val)
{
	struct consumer *c = data;

	return val ? pm_runtime_resume_and_get(c->dev) : pm_runtime_put_sync_suspend(c->dev);
}
DEFINE_DEBUGFS_ATTRIBUTE(power_fops, NULL, power_set, "%llu\n");

static int reset_set(void *data, u64 val)
{
	struct consumer *c = data;

	if (val == 2)
		return reset_control_reset(c->reset);
	return val ? reset_control_assert(c->reset) : reset_control_deassert(c->reset);
}
DEFINE_DEBUGFS_ATTRIBUTE(reset_fops, NULL, reset_set, "%llu\n");

static int voltage_get(void *data, u64 *val)
{
	struct consumer *c = data;
	int microvolt = regulator_get_voltage(c->supply);

	if (microvolt < 0)
		return microvolt;
	*val = microvolt;
	return 0;
}

static int voltage_set(void *data, u64 val)
{
	struct consumer *c = data;
	int ret;

	if (!val) {
		ret = c->supply_on ? regulator_disable(c->supply) : 0;
		c->supply_on = false;
		return ret;
	}
	ret = regulator_set_voltage(c->supply, val, val);
	if (ret || c->supply_on)
		return ret;
	ret = regulator_enable(c->supply);
	c->supply_on = !ret;
	return ret;
}
DEFINE_DEBUGFS_ATTRIBUTE(voltage_fops, voltage_get, voltage_set, "%llu\n");

static int pins_set(void *data, u64 val)
{
	struct consumer *c = data;
	struct pinctrl *pins;

	if (!val) {
		if (c->pins)
			pinctrl_put(c->pins);
		c->pins = NULL;
		return 0;
	}
	if (c->pins)
		return 0;
	pins = pinctrl_get_select(c->dev, "i2c");
	if (IS_ERR(pins))
		return PTR_ERR(pins);
	c->pins = pins;
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(pins_fops, NULL, pins_set, "%llu\n");

static int consumer_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct consumer *c;

	c = devm_kzalloc(dev, sizeof(*c), GFP_KERNEL);
	if (!c)
		return -ENOMEM;
	c->dev = dev;
	c->clk = devm_clk_get(dev, "rate");
	if (IS_ERR(c->clk))
		return dev_err_probe(dev, PTR_ERR(c->clk), "clock\n");
	c->mux = devm_clk_get(dev, "mux");
	c->parents[0] = devm_clk_get(dev, "parent0");
	c->parents[1] = devm_clk_get(dev, "parent1");
	if (IS_ERR(c->mux) || IS_ERR(c->parents[0]) || IS_ERR(c->parents[1]))
		return dev_err_probe(dev, -EINVAL, "mux and its parents\n");
	c->reset = devm_reset_control_get_exclusive(dev, NULL);
	if (IS_ERR(c->reset))
		return dev_err_probe(dev, PTR_ERR(c->reset), "reset\n");
	c->supply = devm_regulator_get(dev, "io");
	if (IS_ERR(c->supply))
		return dev_err_probe(dev, PTR_ERR(c->supply), "regulator\n");
	pm_runtime_enable(dev);

	platform_set_drvdata(pdev, c);
	c->folder = debugfs_create_dir("scmi-consumer", NULL);
	debugfs_create_file_unsafe("rate", 0600, c->folder, c, &rate_fops);
	debugfs_create_file_unsafe("parent", 0600, c->folder, c, &parent_fops);
	debugfs_create_file_unsafe("clock", 0200, c->folder, c, &clock_fops);
	debugfs_create_file_unsafe("power", 0200, c->folder, c, &power_fops);
	debugfs_create_file_unsafe("reset", 0200, c->folder, c, &reset_fops);
	debugfs_create_file_unsafe("voltage", 0600, c->folder, c, &voltage_fops);
	debugfs_create_file_unsafe("pins", 0200, c->folder, c, &pins_fops);
	dev_info(dev, "has all it needs\n");
	return 0;
}

static void consumer_remove(struct platform_device *pdev)
{
	struct consumer *c = platform_get_drvdata(pdev);

	debugfs_remove(c->folder);
	clock_set(c, 0);
	voltage_set(c, 0);
	pins_set(c, 0);
	pm_runtime_disable(&pdev->dev);
}

static const struct of_device_id consumer_ids[] = {
	{ .compatible = "agl,scmi-consumer" },
	{ }
};
MODULE_DEVICE_TABLE(of, consumer_ids);

static struct platform_driver consumer_driver = {
	.probe = consumer_probe,
	.remove = consumer_remove,
	.driver = {
		.name = "scmi-consumer",
		.of_match_table = consumer_ids,
	},
};
module_platform_driver(consumer_driver);

MODULE_DESCRIPTION("Consumer of SCMI clocks, resets, regulators and power domains, for tests");
MODULE_LICENSE("GPL");
