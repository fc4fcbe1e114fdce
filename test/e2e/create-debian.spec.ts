import { existsSync } from 'node:fs';
import { BuildSite } from '../support/build-site.js';

/** The package mirror that the tests of this machine use. */
const MIRROR = 'http://deb.debian.org/debian';

/** Why Debian cannot be installed here; null where it can. */
async function findObstacle(): Promise<string | null> {
  if (!existsSync('/usr/share/keyrings/debian-archive-keyring.gpg')) return 'the keys of Debian are not installed';
  const signal = AbortSignal.timeout(10_000);
  return fetch(`${MIRROR}/dists/bookworm/Release`, { method: 'HEAD', signal }).then(
    ({ ok, status }) => (ok ? null : `${MIRROR} answered ${status}`),
    (error: Error) => `${MIRROR} cannot be reached (${error.message})`,
  );
}

/** A small Debian, with a kernel that is none. */
const RECIPE = {
  '.ims_recipe_template.yaml': 'template_files: [config.xml]\n',
  'config.xml': `<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="7.5" name="debian">
  <description type="system">
    <author>test</author>
    <contact>root@localhost</contact>
    <specification>A small Debian</specification>
  </description>
  <preferences>
    <version>1.0.0</version>
    <packagemanager>apt</packagemanager>
    <type image="tbz"/>
  </preferences>
  <repository type="apt-deb" alias="bookworm" distribution="bookworm" components="main" repository_gpgcheck="false">
    <source path="{{ MIRROR }}"/>
  </repository>
  <packages type="image">
    <package name="ca-certificates"/>
  </packages>
  <packages type="bootstrap">
    <package name="busybox-static"/>
  </packages>
</image>
`,
  'config.sh':
    '#!/bin/sh\necho kernel > /boot/vmlinuz\necho initrd > /boot/initrd\nbusybox uname -m > /etc/config-sh\n',
  'images.sh': null,
  'root/etc/overlay': 'from the overlay of the recipe\n',
};

const obstacle = await findObstacle();
if (obstacle) console.warn(`a recipe of Debian is not built: ${obstacle}`);

(obstacle ? it.skip : it)(
  'a recipe of Debian becomes an image that trusts the site CA',
  async () => {
    const site = await BuildSite.start();
    try {
      const { system } = site;
      const recipeId = await site.addRecipe({ files: RECIPE, values: [{ key: 'MIRROR', value: MIRROR }] });
      const { id } = await site.startJob(recipeId);
      const { resultant_image_id } = await system.waitFor(id, 'success', 540);
      const rootfs = await system.rootfsOf(resultant_image_id!);
      const { stdout } = await system.withMounted(
        [rootfs],
        'cat "$A/etc/config-sh"; dpkg-query --admindir "$A/var/lib/dpkg" --show --showformat \'${Package}\\n\' busybox-static ca-certificates; ls "$A/etc/ssl/certs" | grep -c cray',
      );
      expect(stdout).toBe('x86_64\nbusybox-static\nca-certificates\n1\n');
    } finally {
      await site.stop();
    }
  },
  600_000,
);
