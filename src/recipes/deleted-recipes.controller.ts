import { Body, Controller, Delete, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { ApiDeletes, DryRun } from '../database/dry-run.dto.js';
import { BuiltListQuery } from '../database/list-query.dto.js';
import { OnlyExisting } from '../database/record-exists.guard.js';
import { Undelete } from '../database/undelete.dto.js';
import { ApiProblems } from '../errors/api-problem.js';
import { IdPipe } from '../errors/id.pipe.js';
import { Recipe } from './recipe.entity.js';
import { RecipesService } from './recipes.service.js';

@ApiTags('deleted recipes')
@Controller({ path: 'deleted/recipes', version: '3' })
export class DeletedRecipesController {
  constructor(private readonly recipes: RecipesService) {}

  @Get()
  @ApiOperation({ summary: 'List deleted recipes' })
  @ApiOkResponse({ type: [Recipe] })
  @ApiProblems(400)
  list(@Query() query: BuiltListQuery) {
    return this.recipes.list('all', 'deleted', query);
  }

  @Patch()
  @ApiOperation({ summary: 'Bring all deleted recipes back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 409, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.recipes.undelete();
  }

  @Delete()
  @ApiOperation({ summary: 'Remove all deleted recipes for good' })
  @ApiDeletes()
  @ApiProblems(400)
  purgeAll(@Query() query: DryRun) {
    return this.recipes.purge(query, 'deleted');
  }

  @Get(':id')
  @ApiOperation({ summary: 'Show a deleted recipe' })
  @ApiOkResponse({ type: Recipe })
  @ApiProblems(404)
  get(@Param('id', IdPipe) id: string) {
    return this.recipes.get(id, 'all', 'deleted');
  }

  @Patch(':id')
  @OnlyExisting(RecipesService, 'deleted')
  @ApiOperation({ summary: 'Bring a deleted recipe back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 409, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.recipes.undelete(id);
  }

  @Delete(':id')
  @ApiOperation({ summary: 'Remove a deleted recipe for good' })
  @ApiDeletes()
  @ApiProblems(400, 404)
  purge(@Param('id', IdPipe) id: string, @Query() query: DryRun) {
    return this.recipes.purge(query, 'deleted', id);
  }
}
