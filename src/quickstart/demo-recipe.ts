import { writeFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';

/** Files of a recipe by path; those that end in `.sh` can be executed. */
export type RecipeFiles = Readonly<Record<string, string>>;

/** A recipe of a tiny root. Its repository and further packages are values of its record's template dictionary. */
export const DEMO_RECIPE: RecipeFiles = {
  '.ims_recipe_template.yaml': 'template_files:\n  - config.xml\n',
  'config.xml': `<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="7.5" name="demo">
  <description type="system">
    <author>quickstart</author>
    <contact>root@localhost</contact>
    <specification>A tiny root of busybox</specification>
  </description>
  <preferences>
    <version>1.0.0</version>
    <packagemanager>zypper</packagemanager>
    <rpm-check-signatures>false</rpm-check-signatures>
    <type image="tbz"/>
  </preferences>
  <repository type="rpm-md" alias="demo">
    <source path="{{ REPOSITORY }}"/>
  </repository>
  <packages type="image"/>
  <packages type="bootstrap">
    <package name="filesystem"/>
    <package name="busybox"/>
    <package name="kernel-tiny"/>
    <package name="zypper"/>
{%- for name in PACKAGES.split() %}
    <package name="{{ name }}"/>
{%- endfor %}
  </packages>
</image>
`,
  'config.sh': '#!/bin/sh\necho "made by config.sh" > /etc/config-sh\n',
  'images.sh': '#!/bin/sh\necho "made by images.sh" > /etc/images-sh\n',
  'root/etc/overlay': 'from the overlay of the recipe\n',
};

/** Packs the files of a recipe as sites do: a `.tgz` whose root holds config.xml. */
export async function packRecipe(files: RecipeFiles, file: string): Promise<string> {
  const archive = pack();
  for (const [name, content] of Object.entries(files))
    archive.entry({ name: `./${name}`, mode: name.endsWith('.sh') ? 0o755 : 0o644 }, content);
  archive.finalize();
  await writeFile(file, gzipSync(await buffer(archive)));
  return file;
}
