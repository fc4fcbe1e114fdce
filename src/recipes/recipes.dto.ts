import { ApiProperty, PartialType, PickType } from '@nestjs/swagger';
import { ArtifactLinkDto } from '../artifacts/artifact-link.dto.js';
import { ItemsOf, Nested } from '../errors/members.js';
import { Recipe, TemplateEntry } from './recipe.entity.js';

/** What a client sends to register a recipe. */
export class CreateRecipe extends PickType(Recipe, [
  'name',
  'link',
  'recipe_type',
  'linux_distribution',
  'arch',
  'require_dkms',
  'template_dictionary',
] as const) {}

/** What a client sends to change a recipe: the link, once, and what jobs read of it. */
export class UpdateRecipe extends PartialType(PickType(Recipe, ['arch', 'require_dkms'] as const), {
  skipNullProperties: false,
}) {
  @Nested(ArtifactLinkDto)
  @ApiProperty({ type: ArtifactLinkDto, required: false })
  link?: ArtifactLinkDto;

  @ItemsOf(TemplateEntry, { nullable: false })
  @ApiProperty({ type: [TemplateEntry], required: false })
  template_dictionary?: TemplateEntry[];
}
