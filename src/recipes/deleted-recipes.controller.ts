import { Body, Controller, Delete, Get, HttpCode, Param, Patch } from '@nestjs/common';
import { ApiNoContentResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
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
  list() {
    return this.recipes.list('all', 'deleted');
  }

  @Patch()
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring all deleted recipes back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 409, 415, 422)
  undeleteAll(@Body() _body: Undelete) {
    return this.recipes.undelete();
  }

  @Delete()
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove all deleted recipes for good' })
  @ApiNoContentResponse()
  purgeAll() {
    return this.recipes.purge('deleted', true);
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
  @HttpCode(204)
  @ApiOperation({ summary: 'Bring a deleted recipe back' })
  @ApiNoContentResponse()
  @ApiProblems(400, 404, 409, 415, 422)
  undelete(@Param('id', IdPipe) id: string, @Body() _body: Undelete) {
    return this.recipes.undelete(id);
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiOperation({ summary: 'Remove a deleted recipe for good' })
  @ApiNoContentResponse()
  @ApiProblems(404)
  purge(@Param('id', IdPipe) id: string) {
    return this.recipes.purge('deleted', true, id);
  }
}
