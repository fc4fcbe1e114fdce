import {
  Body,
  Controller,
  Delete,
  Get,
  HttpCode,
  Param,
  Patch,
  Post,
  Query,
  Version,
  VERSION_NEUTRAL,
} from '@nestjs/common';
import { ApiCreatedResponse, ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { AskedMembers, type Members } from '../database/json.js';
import { Purge } from '../database/purge.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Recipe } from './recipe.entity.js';
import { CreateRecipe, UpdateRecipe } from './recipes.dto.js';
import { RecipesService } from './recipes.service.js';

@ApiTags('recipes')
@Controller({ path: 'recipes', version: ['3', '2', VERSION_NEUTRAL] })
export class RecipesController {
  constructor(private readonly recipes: RecipesService) {}

  @Get()
  @ApiOperation({ summary: 'List recipes' })
  @ApiOkResponse({ type: [Recipe] })
  list(@AskedMembers() members: Members) {
    return this.recipes.list(members);
  }

  @Post()
  @ApiOperation({ summary: 'Register a recipe' })
  @ApiCreatedResponse({ type: Recipe })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateRecipe, @AskedMembers() members: Members) {
    return this.recipes.create(body, members);
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a recipe' })
  @ApiOkResponse({ type: Recipe })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string, @AskedMembers() members: Members) {
    return this.recipes.get(id, members);
  }

  @Patch(':id')
  @OnlyExisting(RecipesService)
  @ApiOperation({ summary: 'Link a recipe to its archive, or change what jobs read of it' })
  @ApiOkResponse({ type: Recipe })
  @ApiProblems(400, 404, 409, 415, 422)
  update(@Param('id', IdPipe) id: string, @Body() body: UpdateRecipe, @AskedMembers() members: Members) {
    return this.recipes.update(id, body, members);
  }

  @Delete(':id')
  @Version('3')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a recipe; its record is kept for recovery' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  markDeleted(@Param('id', IdPipe) id: string) {
    return this.recipes.markDeleted(id);
  }

  @Delete()
  @Version('3')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all recipes; their records are kept for recovery' })
  @ApiNoContentResponse()
  markAllDeleted() {
    return this.recipes.markDeleted();
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a recipe and its artifacts for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string, @Query() query: Purge) {
    return this.recipes.purge('live', query.cascade ?? true, id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete all recipes and their artifacts for good' })
  @ApiNoContentResponse()
  purgeAll(@Query() query: Purge) {
    return this.recipes.purge('live', query.cascade ?? true);
  }
}
