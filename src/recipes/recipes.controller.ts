import { Body, Controller, Delete, Get, Param, Patch, Post, Query, Version, VERSION_NEUTRAL } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { AskedMembers, type Members } from '../database/json.js';
import { BuiltListQuery } from '../database/list-query.dto.js';
import { Purge } from '../database/purge.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Idempotent } from '../idempotency/idempotency.interceptor.js';
import { type NewRecord, PlannedRecord } from '../idempotency/new-record.js';
import { Recipe } from './recipe.entity.js';
import { CreateRecipe, UpdateRecipe } from './recipes.dto.js';
import { RecipesService } from './recipes.service.js';

@ApiTags('recipes')
@Controller({ path: 'recipes', version: ['3', '2', VERSION_NEUTRAL] })
export class RecipesController {
  constructor(private readonly recipes: RecipesService) {}

  @Get()
  @Version('3')
  @ApiOperation({ summary: 'List recipes' })
  @ApiOkResponse({ type: [Recipe] })
  @ApiProblems(400)
  list(@Query() query: BuiltListQuery) {
    return this.recipes.list('all', 'live', query);
  }

  @Get()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'List recipes' })
  @ApiOkResponse({ type: [Recipe] })
  listAll() {
    return this.recipes.list('original');
  }

  @Post()
  @Idempotent()
  @ApiOperation({ summary: 'Register a recipe' })
  @ApiCreatedResponse({ type: Recipe })
  @ApiProblems(400, 415, 422)
  create(@Body() body: CreateRecipe, @AskedMembers() members: Members, @PlannedRecord() record: NewRecord) {
    return this.recipes.create(body, members, record);
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
  @ApiOperation({ summary: 'Delete a recipe; its record is kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  markDeleted(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.recipes.markDeleted(query, id);
  }

  @Delete()
  @Version('3')
  @ApiOperation({ summary: 'Delete all recipes; their records are kept for recovery' })
  @ApiDeletes()
  @ApiProblems(400)
  markAllDeleted(@Query() query: DryRun) {
    return this.recipes.markDeleted(query);
  }

  @Delete(':id')
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete a recipe and its artifacts for good' })
  @ApiDeletes()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string, @Query() query: Purge) {
    return this.recipes.purge(query, 'live', id);
  }

  @Delete()
  @Version(['2', VERSION_NEUTRAL])
  @ApiOperation({ summary: 'Delete all recipes and their artifacts for good' })
  @ApiDeletes()
  purgeAll(@Query() query: Purge) {
    return this.recipes.purge(query, 'live');
  }
}
